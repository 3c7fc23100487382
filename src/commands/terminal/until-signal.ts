/** The longest timer that Node has. */
const FOREVER_MS = 2_147_483_647;

/** An `AbortSignal` that aborts at SIGINT, SIGTERM or SIGHUP. The process runs until `release`: its own timers would not keep it. */
export function untilSignal(process: NodeJS.Process): { readonly signal: AbortSignal; readonly release: () => void } {
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => ending.abort());
  const alive = setInterval(() => {}, FOREVER_MS);
  return { signal: ending.signal, release: () => clearInterval(alive) };
}
