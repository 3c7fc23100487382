import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { FAKE_ROUTES } from './fake-http.ts';
import { startFakeOpencode, type FakeOpencode, type FakeOptions, type LoadGauge } from './fake-opencode.ts';
import { within } from './wait.ts';

export interface FakesOptions extends Pick<FakeOptions, 'password' | 'version' | 'heartbeatMs'> {
  /** Idle sessions of each fake; default 1. */
  readonly sessionsEach?: number;
  /** How many, counted from the last, accept every request and answer none. */
  readonly hung?: number;
}

/** Many fakes in this process, under one gauge. */
export interface Fakes extends AsyncDisposable {
  readonly all: readonly FakeOpencode[];
  readonly load: LoadGauge;
  close(): Promise<void>;
}

/** Directories and session titles are numbered, so that instances can be told apart. A prompt is answered with its own text. */
export async function startFakes(count: number, options: FakesOptions = {}): Promise<Fakes> {
  const { sessionsEach = 1, hung = 0, ...rest } = options;
  const load: LoadGauge = { current: 0, max: 0 };
  const all = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const fake = await startFakeOpencode({
        directory: `/home/user/project-${index}`,
        load,
        reply: (text) => text,
        ...rest,
      });
      for (let number = 1; number <= sessionsEach; number++)
        fake.addSession({ title: `Session ${number} of ${index}` });
      if (index >= count - hung) for (const route of FAKE_ROUTES) fake.override(route, { kind: 'hang' });
      return fake;
    }),
  );
  const close = async (): Promise<void> => {
    await Promise.all(all.map((fake) => fake.close()));
  };
  return { all, load, close, [Symbol.asyncDispose]: close };
}

/** Many fakes in a process of their own, so that they take no time from the thread that is measured. */
export interface FakeFleet extends AsyncDisposable {
  readonly pid: number;
  readonly ports: readonly number[];
  /** Requests in work over the whole fleet: now, and the most since the fleet began or the last call of `resetLoad`. */
  load(): Promise<LoadGauge>;
  resetLoad(): Promise<LoadGauge>;
  close(): Promise<void>;
}

const SCRIPT = fileURLToPath(new URL('fake-fleet.ts', import.meta.url));

export async function startFakeFleet(count: number, options: FakesOptions = {}): Promise<FakeFleet> {
  // It ends when its input does, so also when this process dies. Where it starts decides which tsx it finds.
  const child = spawn(process.execPath, ['--import', 'tsx', SCRIPT, String(count), JSON.stringify(options)], {
    cwd: dirname(SCRIPT),
    env: { PATH: process.env['PATH'] ?? '' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(child, 'spawn');
  const pid = child.pid ?? 0;
  child.stdin.on('error', () => {});
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const line = await within(lines.next(), 'a line of the fake fleet');
    if (line.done === true) throw new Error('the fake fleet has ended');
    return line.value;
  };
  const ask = async (order: 'load' | 'reset'): Promise<LoadGauge> => {
    child.stdin.write(`${order}\n`);
    const gauge: LoadGauge = JSON.parse(await next());
    return gauge;
  };
  const ports: readonly number[] = JSON.parse(await next());
  const close = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.stdin.end();
    await within(exited, 'the fake fleet to end').catch(() => child.kill('SIGKILL'));
  };
  return { pid, ports, load: () => ask('load'), resetLoad: () => ask('reset'), close, [Symbol.asyncDispose]: close };
}
