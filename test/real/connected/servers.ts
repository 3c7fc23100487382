import { atEnd, type Relay } from '../../connected/wrapper-stage.ts';
import { type McpChild, startMcpChild } from '../../rig/programs/mcp-child.ts';
import { until } from '../../rig/wait.ts';

/** An MCP server on the relay. */
export async function serverOn(relay: Relay): Promise<McpChild> {
  const server = await startMcpChild({
    // A client without a short request timeout, since a cold opencode on a busy machine is slow.
    clientInfo: { name: 'claude-code', version: '2.1.329' },
    args: ['--registry-dir', relay.registry, '--health-timeout-ms', '15000'],
    env: { HOME: relay.sshd.home },
  });
  atEnd(() => server.close());
  return server;
}

interface Row {
  readonly name: string;
  readonly state: string;
  readonly directory?: string;
}

export async function rows(server: McpChild): Promise<readonly Row[]> {
  const { result } = await server.call('instances');
  return (result.structuredContent as { readonly instances: readonly Row[] }).instances;
}

/** Resolves with the name of the idle instance in that directory. */
export function listed(server: McpChild, directory: string): Promise<string> {
  return until(
    `an idle instance in ${directory}`,
    async () => (await rows(server)).find((row) => row.directory === directory && row.state === 'idle')?.name,
  );
}
