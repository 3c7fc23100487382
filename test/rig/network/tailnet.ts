import { Headscale } from './tailnet-headscale.ts';
import { Namespaces, removeLeftovers } from './tailnet-namespaces.ts';
import { type NodeOptions, TailnetMachine } from './tailnet-node.ts';
import { TAILNET_VERSIONS } from './tailnet-programs.ts';
import { tempDir } from '../temp.ts';
import { until } from '../wait.ts';

export { needTailnet } from './tailnet-programs.ts';
export type { TailnetMachine } from './tailnet-node.ts';

export interface TailnetOptions {
  readonly nodes: readonly NodeOptions[];
  readonly magicDns?: boolean;
  readonly families?: 'both' | 'v6';
  /** headscale's policy, to which `nodeAttrs` are added; default `OPEN_POLICY`. */
  readonly policy?: Readonly<Record<string, unknown>>;
}

/** A real tailnet: headscale with its DERP relay, and a tailscaled per node, each in its own network namespace. */
export interface Tailnet extends AsyncDisposable {
  readonly headscale: Headscale;
  /** Throws if there is no such node. */
  node(name: string): TailnetMachine;
  /** Replaces the policy. */
  setPolicy(policy: Readonly<Record<string, unknown>>): Promise<void>;
  /** Versions and pids, for a suite's log. */
  describe(): string;
  close(): Promise<void>;
}

/** Lets every node reach every other; ada owns the tags of the suites. */
export const OPEN_POLICY = {
  acls: [{ action: 'accept', src: ['*'], dst: ['*:*'] }],
  tagOwners: { 'tag:server': ['ada@'], 'tag:other': ['ada@'] },
};

let serial = 0;

/** Resolves when every node sees every other, after about 8 s. First removes the leftovers of killed runs. */
export async function openTailnet(options: TailnetOptions): Promise<Tailnet> {
  await removeLeftovers();
  const temp = tempDir('tailnet-rig');
  const spaces = await Namespaces.open((serial += 1));
  const headscale = new Headscale({
    namespace: spaces.hub,
    folder: temp.path,
    tmp: temp.tmp,
    magicDns: options.magicDns ?? true,
    families: options.families ?? 'both',
    policy: policyOf(options.policy),
  });
  const nodes = new Map<string, TailnetMachine>();
  let closing: Promise<void> | undefined;
  const close = (): Promise<void> => (closing ??= spaces.close().then(() => temp.close()));
  try {
    await headscale.prepare();
    await headscale.start();
    for (const [index, node] of options.nodes.entries())
      nodes.set(node.name, new TailnetMachine(node, await spaces.machine(11 + index), temp));
    await Promise.all([...nodes.values()].map((node) => node.start()));
    const keys: string[] = [];
    for (const { user = 'ada', tags = [] } of options.nodes) keys.push(await headscale.authKey(user, tags));
    await Promise.all([...nodes.values()].map((node, index) => node.join(keys[index] ?? '')));
    await waitUntilAllOnline([...nodes.values()]);
  } catch (error) {
    await close();
    throw error;
  }
  return {
    headscale,
    node: (name) => {
      const node = nodes.get(name);
      if (node === undefined) throw new Error(`Expected one of ${[...nodes.keys()].join(', ')}, got ${name}`);
      return node;
    },
    setPolicy: (policy) => headscale.setPolicy(policyOf(policy)),
    describe: () =>
      `${TAILNET_VERSIONS}: ${[...nodes.values()].map(({ name, pid }) => `${name} (pid ${pid})`).join(', ')}`,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** Adds the attribute that stops the nodes from probing public hosts for captive portals. */
function policyOf(policy: Readonly<Record<string, unknown>> = OPEN_POLICY): unknown {
  return { ...policy, nodeAttrs: [{ target: ['*'], attr: ['disable-captive-portal-detection'] }] };
}

async function waitUntilAllOnline(nodes: readonly TailnetMachine[]): Promise<void> {
  await until('every node to see every other online', async () => {
    const statuses = await Promise.all(nodes.map(({ localApi }) => localApi.status()));
    return statuses.every(({ peers }) => peers.filter(({ online }) => online).length >= nodes.length - 1);
  });
}
