import { unlessAborted } from '../base/unless-aborted.ts';

/** Whether a registration's directory is the one that the server reports. Rejects only if `signal` aborts. */
export type SameDirectory = (
  claimed: string,
  reported: string,
  options: { readonly sameMachine: boolean; readonly signal: AbortSignal },
) => Promise<boolean>;

/** Resolves links of the claimed directory only, and only on its own machine. A network file system may hang, so probes share one `realpath` for each path. */
export function createSameDirectory(realpath: (path: string) => Promise<string>): SameDirectory {
  const inFlight = new Map<string, Promise<string>>();
  return async (claimed, reported, { sameMachine, signal }) => {
    if (normalize(claimed) === normalize(reported)) return true;
    if (!sameMachine) return false;
    let resolved = inFlight.get(claimed);
    if (resolved === undefined) {
      resolved = realpath(claimed)
        .catch(() => claimed)
        .finally(() => inFlight.delete(claimed));
      inFlight.set(claimed, resolved);
    }
    return normalize(await unlessAborted(resolved, signal)) === normalize(reported);
  };
}

/** Without trailing slashes; macOS reports /private/tmp for /tmp. */
function normalize(path: string): string {
  let end = path.length;
  while (end > 1 && (path[end - 1] === '/' || path[end - 1] === '\\')) end -= 1;
  return path.slice(path.startsWith('/private/') ? '/private'.length : 0, end);
}
