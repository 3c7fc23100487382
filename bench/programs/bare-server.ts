/**
 * Baseline of the start-up: an MCP server as in the SDK's guide, with as many tools as ours (its only argument) and nothing
 * behind them. zod is imported as a namespace so that the bundler drops its unused parts.
 */
import { McpServer } from '@modelcontextprotocol/sdk/server/mcp.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import * as z from 'zod';

const count = Number(process.argv[2] ?? '1');
const server = new McpServer({ name: 'bare', version: '1.0.0' });
for (let number = 1; number <= count; number++) {
  server.registerTool(
    `tool_${number}`,
    {
      description: `Tool number ${number}.`,
      inputSchema: { instance: z.string(), limit: z.number().optional() },
      outputSchema: { instance: z.string(), text: z.string().optional() },
    },
    ({ instance }) => ({ content: [{ type: 'text', text: instance }], structuredContent: { instance } }),
  );
}
process.stdin.once('end', () => process.exit(0));
await server.connect(new StdioServerTransport());
