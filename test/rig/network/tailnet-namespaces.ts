import { ipIn, NamespaceSet } from './namespaces.ts';

export { processesOf, removeLeftovers } from './namespaces.ts';

/** Network namespaces joined by a bridge in the first one, isolated from the machine. */
export class Namespaces {
  readonly #set: NamespaceSet;

  private constructor(set: NamespaceSet) {
    this.#set = set;
  }

  /** Creates the hub: a bridge with 10.213.0.1. */
  static async open(serial: number): Promise<Namespaces> {
    const spaces = new Namespaces(await NamespaceSet.open(String(serial)));
    const hub = await spaces.#set.add('hub');
    await ipIn(hub, 'link', 'add', 'br0', 'type', 'bridge');
    await ipIn(hub, 'addr', 'add', '10.213.0.1/24', 'dev', 'br0');
    await ipIn(hub, 'link', 'set', 'br0', 'up');
    return spaces;
  }

  get hub(): string {
    return this.#set.nameOf('hub');
  }

  /** Creates the namespace of a machine, at `10.213.0.<number>`. */
  async machine(number: number): Promise<string> {
    const name = await this.#set.add(`n${number}`);
    const port = `v${number}`;
    await ipIn(this.hub, 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name);
    await ipIn(this.hub, 'link', 'set', port, 'master', 'br0', 'up');
    await ipIn(name, 'addr', 'add', `10.213.0.${number}/24`, 'dev', 'eth0');
    await ipIn(name, 'link', 'set', 'eth0', 'up');
    await ipIn(name, 'route', 'add', 'default', 'via', '10.213.0.1');
    return name;
  }

  /** Ends the processes in the namespaces and removes the namespaces. */
  close(): Promise<void> {
    return this.#set.close();
  }
}
