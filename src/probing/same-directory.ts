import { unlessAborted } from '../base/unless-aborted.ts';

/** Whether a registration's directory is the one that the server reports. Rejects only as `signal` aborts. */
export type SameDirectory = (
  claimed: string,
  told: string,
  options: { readonly sameMachine: boolean; readonly signal: AbortSignal },
) => Promise<boolean>;

/**
 * `realpath` is asked for the claimed directory only, only on the machine it is on, and nothing below it is read. A
 * network file system may hang: each path is asked once at a time, however many probes wait for it.
 */
export function createSameDirectory(realpath: (path: string) => Promise<string>): SameDirectory {
  const inFlight = new Map<string, Promise<string>>();
  return async (claimed, told, { sameMachine, signal }) => {
    if (normalize(claimed) === normalize(told)) return true;
    if (!sameMachine) return false;
    let resolved = inFlight.get(claimed);
    if (resolved === undefined) {
      resolved = realpath(claimed)
        .catch(() => claimed)
        .finally(() => inFlight.delete(claimed));
      inFlight.set(claimed, resolved);
    }
    return normalize(await unlessAborted(resolved, signal)) === normalize(told);
  };
}

/** Without trailing slashes, and as a shell shows it: macOS reports /private/tmp for /tmp. */
function normalize(path: string): string {
  let end = path.length;
  while (end > 1 && (path[end - 1] === '/' || path[end - 1] === '\\')) end -= 1;
  return path.slice(path.startsWith('/private/') ? '/private'.length : 0, end);
}
