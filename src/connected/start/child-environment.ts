/**
 * What npm, npx and their like set for the script they run. opencode installs packages itself, and would
 * do so with the settings of whichever package this program was started from.
 */
const OF_A_PACKAGE_MANAGER = /^(?:npm_|npx_|pnpm_)|^INIT_CWD$/;

type Environment = Readonly<Record<string, string | undefined>>;

/** The person's own environment, less what npm passes on. */
export function personsEnvironment(env: Environment): Record<string, string> {
  const kept = Object.entries(env).filter(
    (pair): pair is [string, string] => pair[1] !== undefined && !OF_A_PACKAGE_MANAGER.test(pair[0]),
  );
  return Object.fromEntries(kept);
}

/** The environment for an OpenCode 1: the person's own, with the password of this start or none. */
export function childEnvironment(env: Environment, password: string | undefined): Record<string, string> {
  // The reader of a registration takes opencode's default user name, so opencode must too.
  const { OPENCODE_SERVER_USERNAME: _, OPENCODE_SERVER_PASSWORD: __, ...kept } = personsEnvironment(env);
  return { ...kept, ...(password !== undefined && { OPENCODE_SERVER_PASSWORD: password }) };
}
