/** Logs the versions and pids of the real components that a suite drives. */
export function announce(...components: ReadonlyArray<{ describe(): string }>): void {
  for (const component of components) console.info(`drove ${component.describe()}`);
}
