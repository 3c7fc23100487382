import { quoteName } from '../base/plain-text.ts';

/** The oldest version that the tests run against; the README names it. */
export const MIN_VERSION = '1.18.10';
const OLDEST: Numbers = [1, 18, 10];

type Numbers = readonly [major: number, minor: number, patch: number];

/** Why this program cannot drive that version; undefined if it can. Accepts what does not parse, and builds from source (0.0.0-…). */
export function unsupportedReason(version: string): string | undefined {
  const found = parse(version);
  if (found === undefined || found.every((number) => number === 0)) return undefined;
  // OpenCode 2 has another health route.
  if (found[0] >= 2)
    return `opencode ${quoteName(version)} answers like OpenCode 1, of which 1.x from ${MIN_VERSION} on is known; update opencode-mcp`;
  if (isOlder(found)) return `opencode ${quoteName(version)} is too old; ${MIN_VERSION} or newer is needed`;
  return undefined;
}

function parse(version: string): Numbers | undefined {
  const match = /^v?(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:[-+].*)?$/.exec(version);
  return match === null ? undefined : [Number(match[1]), Number(match[2]), Number(match[3])];
}

function isOlder([major, minor, patch]: Numbers): boolean {
  return (major - OLDEST[0] || minor - OLDEST[1] || patch - OLDEST[2]) < 0;
}
