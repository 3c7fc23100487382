import type { Supervised } from './supervised.ts';

export interface Signals {
  /** Aborts when the person does not want to wait for the relay, or when this program is to end. */
  readonly giveUp: AbortSignal;
  /** The signal that is to end this program, if it came before opencode was started. */
  readonly ended: NodeJS.Signals | undefined;
  /** From here on the signals are opencode's. `interrupted`: an interrupt has ended ssh, which this process may notice a little later. */
  starting(before: { readonly interrupted: boolean }): void;
  /** Back to what they do by default. */
  stop(): void;
}

/** The terminal sends these to opencode too. It ends by the first one; what is left alive after so long got none. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT'];
const PASS_AFTER_MS = 500;
/** The terminal sends an interrupt to all at once, but a busy machine may wake another process of them first. */
const LATE_MS = 1000;
const TO_END: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGHUP'];

/** Before opencode runs, Ctrl-C means "without the relay"; afterwards every signal is passed on, and opencode's end is ours. */
export function passSignals(
  process: Pick<NodeJS.Process, 'on' | 'off'>,
  supervised: Pick<Supervised, 'pass' | 'stop'>,
): Signals {
  const giveUp = new AbortController();
  let started = false;
  let ended: NodeJS.Signals | undefined;
  let isLateExpected = false;
  const listeners = new Map<NodeJS.Signals, () => void>();
  for (const signal of FROM_TERMINAL) {
    listeners.set(signal, () => {
      if (!started) giveUp.abort();
      else if (isLateExpected) isLateExpected = false;
      else setTimeout(() => supervised.pass(signal), PASS_AFTER_MS).unref();
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
    starting({ interrupted }) {
      started = true;
      isLateExpected = interrupted && !giveUp.signal.aborted;
      setTimeout(() => (isLateExpected = false), LATE_MS).unref();
      if (ended !== undefined) supervised.stop(ended);
    },
    stop() {
      for (const [signal, listener] of listeners) process.off(signal, listener);
    },
  };
}
