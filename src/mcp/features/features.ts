import type { Server } from '@modelcontextprotocol/sdk/server/index.js';
import {
  CompleteRequestSchema,
  type CompleteResult,
  ErrorCode,
  GetPromptRequestSchema,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  McpError,
  ReadResourceRequestSchema,
  type ServerCapabilities,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from '@modelcontextprotocol/sdk/types.js';

import type { Call, Runtime } from '../../operations/runtime.ts';
import type { ClientLog } from './client-log.ts';
import type { FleetNews } from './fleet-news.ts';
import { parseUri, type ResourceName } from './resource-uri.ts';

/** What there is beside tools. `completions` go with resources and prompts. */
export const FEATURES: ServerCapabilities = {
  resources: { subscribe: true, listChanged: true },
  prompts: {},
  completions: {},
  logging: {},
};

export interface FeatureDeps {
  /** Names of the tools that are offered. */
  readonly tools: readonly string[];
  readonly news: FleetNews;
  readonly log: ClientLog;
  /** Starts discovery where it has not begun. */
  runtime(): Promise<Runtime>;
  call(signal: AbortSignal): Call;
  /** Does the work on an instance on behalf of the client: recorded, and its errors told as a tool's. */
  onInstance<T>(method: string, name: ResourceName, work: () => Promise<T>): Promise<T>;
}

/** Resources, prompts, completion and logging; loaded when they are first asked for, as tools are. */
export function registerFeatures(server: Server, deps: FeatureDeps): void {
  registerResources(server, deps);
  registerPrompts(server, deps);
  server.setRequestHandler(CompleteRequestSchema, ({ params }, { signal }) => complete(deps, params, signal));
  server.setRequestHandler(SetLevelRequestSchema, ({ params }) => {
    deps.log.setLevel(params.level);
    return {};
  });
}

function registerResources(server: Server, deps: FeatureDeps): void {
  server.setRequestHandler(ListResourcesRequestSchema, async ({ params }) => {
    const { listResources } = await import('./resources.ts');
    const runtime = await deps.runtime();
    const page = await listResources(runtime, params?.cursor);
    deps.news.listed(runtime.fleet.snapshot());
    return { ...page };
  });
  server.setRequestHandler(ListResourceTemplatesRequestSchema, async () => {
    const { TEMPLATES } = await import('./resources.ts');
    return { resourceTemplates: [...TEMPLATES] };
  });
  server.setRequestHandler(ReadResourceRequestSchema, async ({ params }, { signal }) => {
    const name = named(params.uri);
    const { MIME_TYPE, readResource } = await import('./resources.ts');
    const runtime = await deps.runtime();
    const text = await deps.onInstance('resources/read', name, () => readResource(runtime, name, deps.call(signal)));
    return { contents: [{ uri: params.uri, mimeType: MIME_TYPE, text }] };
  });
  server.setRequestHandler(SubscribeRequestSchema, async ({ params }) => {
    named(params.uri);
    const { fleet } = await deps.runtime();
    if (!deps.news.subscribe(params.uri, fleet.snapshot()))
      throw new McpError(ErrorCode.InvalidParams, 'Too many subscriptions; unsubscribe some first');
    return {};
  });
  server.setRequestHandler(UnsubscribeRequestSchema, ({ params }) => {
    deps.news.unsubscribe(params.uri);
    return {};
  });
}

function named(uri: string): ResourceName {
  const name = parseUri(uri);
  if (name !== undefined) return name;
  throw new McpError(
    ErrorCode.InvalidParams,
    `${JSON.stringify(uri.slice(0, 200))} is no resource of this server; there are opencode://{instance} and opencode://{instance}/sessions/{id}, and resources/list names them.`,
  );
}

function registerPrompts(server: Server, deps: FeatureDeps): void {
  server.setRequestHandler(ListPromptsRequestSchema, async () => {
    const { listPrompts } = await import('./prompts.ts');
    return { prompts: listPrompts(deps.tools) };
  });
  server.setRequestHandler(GetPromptRequestSchema, async ({ params }) => {
    const { listPrompts, promptText } = await import('./prompts.ts');
    const text = invalidParams(() => promptText(params.name, params.arguments ?? {}, deps.tools));
    if (text === undefined) {
      const there = listPrompts(deps.tools).map(({ name }) => name);
      throw new McpError(
        ErrorCode.InvalidParams,
        `Unknown prompt ${JSON.stringify(params.name.slice(0, 100))}; there are: ${there.join(', ')}`,
      );
    }
    return { messages: [{ role: 'user', content: { type: 'text', text } }] };
  });
}

function invalidParams<T>(work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw error instanceof RangeError ? new McpError(ErrorCode.InvalidParams, error.message) : error;
  }
}

/** `instance`, and `id` or `session_id`, of a template or a prompt; anything else has no completions. */
async function complete(
  deps: FeatureDeps,
  {
    argument,
    context,
  }: {
    argument: { name: string; value: string };
    context?: { arguments?: Record<string, string> | undefined } | undefined;
  },
  signal: AbortSignal,
): Promise<CompleteResult> {
  const { completeInstance, completeSession, completion } = await import('./completion.ts');
  const runtime = await deps.runtime();
  if (argument.name === 'instance') return { completion: await completeInstance(runtime, argument.value) };
  if (argument.name !== 'id' && argument.name !== 'session_id') return { completion: completion([]) };
  const instance = context?.arguments?.['instance'];
  return { completion: await completeSession(runtime, instance, argument.value, deps.call(signal)) };
}
