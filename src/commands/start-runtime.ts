export async function startRuntime(): Promise<never> { throw new Error('x'); }
