/**
 * What start-up is measured against: an MCP server as the SDK's own guide writes it, with as many tools as ours and
 * nothing behind them. Its one argument is how many. zod as a namespace: the bundler leaves out what is not used of it.
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
