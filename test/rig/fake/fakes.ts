import { FAKE_ROUTES } from './fake-http.ts';
import { startFakeOpencode, type FakeOpencode, type LoadGauge } from './fake-opencode.ts';

/** Fakes in this process that share one load gauge. */
export interface Fakes extends AsyncDisposable {
  readonly all: readonly FakeOpencode[];
  readonly load: LoadGauge;
  close(): Promise<void>;
}

/** Starts fakes with numbered directories and session titles. They answer a prompt with its own text; the last `hung` never answer. */
export async function startFakes(count: number, hung = 0): Promise<Fakes> {
  const load: LoadGauge = { current: 0, max: 0 };
  const all = await Promise.all(
    Array.from({ length: count }, async (_, index) => {
      const fake = await startFakeOpencode({
        directory: `/home/user/project-${index}`,
        load,
        reply: (text) => text,
      });
      fake.addSession({ title: `Session 1 of ${index}` });
      if (index >= count - hung) for (const route of FAKE_ROUTES) fake.override(route, { kind: 'hang' });
      return fake;
    }),
  );
  const close = async (): Promise<void> => {
    await Promise.all(all.map((fake) => fake.close()));
  };
  return { all, load, close, [Symbol.asyncDispose]: close };
}
