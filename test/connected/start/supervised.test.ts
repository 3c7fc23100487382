import { afterEach, expect, onTestFinished, test } from 'vitest';

import { silentLogger } from '../../../src/base/log.ts';
import { Supervised } from '../../../src/connected/start/supervised.ts';
import { listenHttp } from '../../rig/http-listener.ts';
import { endAll, program } from '../wrapper-stage.ts';

afterEach(endAll);

/** Listens on a port before opencode does. */
async function occupyPort(port: number): Promise<void> {
  const { close } = await listenHttp(() => {}, port);
  onTestFinished(close);
}

/** Supervises an opencode that never listens, on a port that another process takes first. */
async function superviseOnTakenPort(onStart: (supervised: Supervised, starts: number) => void) {
  let starts = 0;
  const supervised: Supervised = new Supervised({
    launch: { program: await program('exec sleep 600'), headless: true, host: '127.0.0.1', args: [], env: {} },
    wantedPort: undefined,
    terminal: { restore() {} },
    guard: { watch: () => onStart(supervised, (starts += 1)) },
    logger: silentLogger,
  });
  await supervised.choosePort();
  await occupyPort(supervised.port);
  return { supervised, starts: () => starts };
}

test('an opencode that is stopped before it listens is not started again if its port is taken', async () => {
  const { supervised, starts } = await superviseOnTakenPort((opencode) => opencode.stop('SIGKILL'));
  expect(await supervised.run({ answers() {}, moved: async () => {} })).toEqual({ code: null, signal: 'SIGKILL' });
  expect(starts()).toBe(1);
});

test('an opencode whose port other processes take five times is not started again', async () => {
  const { supervised, starts } = await superviseOnTakenPort((opencode, nth) => {
    if (nth > 5) opencode.stop('SIGKILL');
  });
  await expect(supervised.run({ answers() {}, moved: occupyPort })).rejects.toThrow('other processes took every port');
  expect(starts()).toBe(5);
});
