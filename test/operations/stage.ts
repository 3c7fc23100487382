import { candidate } from '../fleet/candidates.ts';
import { TestSource } from '../fleet/world.ts';
import { type FakeOpencode, type FakeOptions, startFakeOpencode } from '../rig/fake/fake-opencode.ts';
import { type FaultProxy, startFaultProxy } from '../rig/network/fault-proxy.ts';
import { testFleet } from '../rig/runtime.ts';
import { tempDir } from '../rig/temp.ts';

/** A fleet on the real clock that knows opencodes behind proxies, for one test. */
export class Stage {
  readonly temp = tempDir('operations');
  readonly source = new TestSource();
  readonly fleet = testFleet(this.source);
  readonly #servers: { close(): Promise<void> }[] = [];

  /** Adds an instance behind a proxy, which the next scan finds. */
  async add(name: string, options?: FakeOptions): Promise<{ readonly fake: FakeOpencode; readonly proxy: FaultProxy }> {
    const fake = await startFakeOpencode(options);
    const proxy = await startFaultProxy(fake.url);
    this.#servers.push(proxy, fake);
    this.source.candidates.set(name, candidate({ key: name, url: proxy.url, claims: { name } }));
    return { fake, proxy };
  }

  async start(): Promise<void> {
    this.fleet.start();
    await this.fleet.ready();
  }

  readonly close = async (): Promise<void> => {
    for (const closable of [this.fleet, ...this.#servers, this.temp]) await closable.close();
  };
}
