/**
 * What npm, npx and their like set for the script they run. opencode installs packages itself, and would
 * do so with the settings of whichever package this program was started from.
 */
const OF_A_PACKAGE_MANAGER = /^(?:npm_|npx_|pnpm_)|^INIT_CWD$/;

type Environment = Readonly<Record<string, string | undefined>>;

/** The environment for opencode: the person's own, less what npm passes on, and with the password of this start or none. */
export function childEnvironment(env: Environment, password: string | undefined): Record<string, string> {
  const kept = Object.entries(env).filter(
    (pair): pair is [string, string] =>
      pair[1] !== undefined &&
      !OF_A_PACKAGE_MANAGER.test(pair[0]) &&
      // The reader of a registration takes opencode's default user name, so opencode must too.
      pair[0] !== 'OPENCODE_SERVER_USERNAME' &&
      pair[0] !== 'OPENCODE_SERVER_PASSWORD',
  );
  return { ...Object.fromEntries(kept), ...(password !== undefined && { OPENCODE_SERVER_PASSWORD: password }) };
}
