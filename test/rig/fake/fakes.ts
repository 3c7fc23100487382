import { FAKE_ROUTES } from './fake-http.ts';
import { startFakeOpencode, type FakeOpencode, type LoadGauge } from './fake-opencode.ts';

/** Many fakes in this process, under one gauge. */
export interface Fakes extends AsyncDisposable {
  readonly all: readonly FakeOpencode[];
  readonly load: LoadGauge;
  close(): Promise<void>;
}

/** Directories and session titles are numbered. A prompt is answered with its own text. The last `hung` accept requests and answer none. */
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
