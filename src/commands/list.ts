export async function list(): Promise<never> { throw new Error('x'); }
