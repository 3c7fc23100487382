/** A suite that drives a real component says which: version and process id, from the component's `describe()`. */
export function announce(...components: ReadonlyArray<{ describe(): string }>): void {
  for (const component of components) console.info(`drove ${component.describe()}`);
}
