import type { McpChild } from '../rig/programs/mcp-child.ts';
import { until } from '../rig/wait.ts';

/** A row of `list_instances`. */
export interface Row {
  readonly name: string;
  readonly state: string;
  readonly host: string;
  readonly via: string;
  readonly reason?: string;
  readonly directory?: string;
}

/** Waits until `isWanted` accepts the list of instances, and returns it. Does not refresh the list. */
export async function listed(server: McpChild, isWanted: (rows: readonly Row[]) => boolean): Promise<readonly Row[]> {
  let latest = '';
  return until('the wanted list', async () => {
    const { result, text } = await server.call('list_instances', { limit: 200 });
    latest = text;
    const { instances } = result.structuredContent as { readonly instances: readonly Row[] };
    return isWanted(instances) ? instances : undefined;
  }).catch((error: unknown) => {
    throw new Error(`${String(error)}; the list is\n${latest}\nlog:\n${server.stderr.join('\n')}`, { cause: error });
  });
}
