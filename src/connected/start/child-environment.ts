/**
 * Variables that npm, npx and the like set for a script. opencode installs packages itself, and would use the settings of
 * the package from which this program was started.
 */
const OF_A_PACKAGE_MANAGER = /^(?:npm_|npx_|pnpm_)|^INIT_CWD$/;

type Environment = Readonly<Record<string, string | undefined>>;

export function personsEnvironment(env: Environment): Record<string, string> {
  const kept = Object.entries(env).filter(
    (pair): pair is [string, string] => pair[1] !== undefined && !OF_A_PACKAGE_MANAGER.test(pair[0]),
  );
  return Object.fromEntries(kept);
}

/** The environment for an OpenCode 1: the person's, with this start's password or none. */
export function childEnvironment(env: Environment, password: string | undefined): Record<string, string> {
  // Readers of the registration assume opencode's default user name.
  const { OPENCODE_SERVER_USERNAME: _, OPENCODE_SERVER_PASSWORD: __, ...kept } = personsEnvironment(env);
  return { ...kept, ...(password !== undefined && { OPENCODE_SERVER_PASSWORD: password }) };
}
