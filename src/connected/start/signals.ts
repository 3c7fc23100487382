import type { Supervised } from './supervised.ts';

export interface Signals {
  /** Aborts when the user stops waiting for the relay (Ctrl-C), or when this program is to end. */
  readonly giveUp: AbortSignal;
  /** The signal that is to end this program, if it came before opencode was started. */
  readonly ended: NodeJS.Signals | undefined;
  /** From now on signals are passed on to opencode. */
  starting(): void;
  stop(): void;
}

/** The terminal sends these to opencode too, which ends at the first. If it has not ended after `PASS_AFTER_MS`, it did not get the signal. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
const PASS_AFTER_MS = 500;
const TO_END: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP'];

/** Before opencode runs, Ctrl-C means "without the relay". Afterwards every signal is passed on, and this program ends with opencode. */
export function passSignals(
  process: Pick<NodeJS.Process, 'on' | 'off'>,
  supervised: Pick<Supervised, 'pass' | 'stop'>,
): Signals {
  const giveUp = new AbortController();
  let isStarted = false;
  let ended: NodeJS.Signals | undefined;
  const listeners = new Map<NodeJS.Signals, () => void>();
  for (const signal of FROM_TERMINAL) {
    listeners.set(signal, () => {
      if (isStarted) setTimeout(() => supervised.pass(signal), PASS_AFTER_MS).unref();
      else giveUp.abort();
    });
  }
  for (const signal of TO_END) {
    listeners.set(signal, () => {
      if (isStarted) supervised.stop(signal);
      else ended ??= signal;
      giveUp.abort();
    });
  }
  for (const [signal, listener] of listeners) process.on(signal, listener);
  return {
    giveUp: giveUp.signal,
    get ended() {
      return ended;
    },
    starting() {
      isStarted = true;
      if (ended !== undefined) supervised.stop(ended);
    },
    stop() {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}
