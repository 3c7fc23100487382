import type { Supervised } from './supervised.ts';

export interface Signals {
  /** Aborts when the person does not want to wait for the relay, or when this program is to end. */
  readonly giveUp: AbortSignal;
  /** The signal that is to end this program, if it came before opencode was started. */
  readonly ended: NodeJS.Signals | undefined;
  /** From here on the signals are opencode's. */
  starting(): void;
  /** Back to what they do by default. */
  stop(): void;
}

/** The terminal sends these to opencode too. It ends by the first one; what is left alive after so long got none. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
const PASS_AFTER_MS = 500;
const TO_END: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP'];

/** Before opencode runs, Ctrl-C means "without the relay"; afterwards every signal is passed on, and opencode's end is ours. */
export function passSignals(process: NodeJS.Process, supervised: Supervised): Signals {
  const giveUp = new AbortController();
  let started = false;
  let ended: NodeJS.Signals | undefined;
  const listeners = new Map<NodeJS.Signals, () => void>();
  for (const signal of FROM_TERMINAL) {
    listeners.set(signal, () => {
      if (started) setTimeout(() => supervised.pass(signal), PASS_AFTER_MS).unref();
      else giveUp.abort();
    });
  }
  for (const signal of TO_END) {
    listeners.set(signal, () => {
      if (started) supervised.stop(signal);
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
      started = true;
      if (ended !== undefined) supervised.stop(ended);
    },
    stop() {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}
