import type { Snapshot } from '../../model/instance.ts';
import type { Call, Runtime } from '../../operations/runtime.ts';
import type { McpRequest, Method } from '../core.ts';
import { INVALID_PARAMS, objectIn, optionalTextIn, type Params, RpcError, textIn, textsIn } from '../wire.ts';
import { parseUri, type ResourceName } from './resource-uri.ts';

export interface FeatureDeps {
  readonly tools: readonly string[];
  /** Called with each list of instances that the client gets. */
  listed(shown: Snapshot): void;
  /** Starts discovery if it has not started. */
  runtime(): Promise<Runtime>;
  /** Runs work on an instance: records it, and words its errors as a tool's. */
  onInstance<T>(method: string, name: ResourceName, request: McpRequest, work: () => Promise<T>): Promise<T>;
}

/** Resources, prompts and completion. Each is loaded when it is first called. */
export function featureMethods(deps: FeatureDeps): readonly (readonly [string, Method])[] {
  return [
    ['resources/list', async (params) => await listResources(deps, params)],
    ['resources/templates/list', async () => ({ resourceTemplates: (await import('./resources.ts')).TEMPLATES })],
    ['resources/read', async (params, request) => await readResource(deps, textIn(params, 'uri'), request)],
    ['prompts/list', async () => ({ prompts: (await import('./prompts.ts')).listPrompts(deps.tools) })],
    ['prompts/get', async (params) => await getPrompt(deps, params)],
    ['completion/complete', async (params, request) => await complete(deps, params, request)],
  ];
}

/** @throws {RpcError} the URI is not one of ours */
export function resourceNamed(uri: string): ResourceName {
  const name = parseUri(uri);
  if (name !== undefined) return name;
  throw new RpcError(
    INVALID_PARAMS,
    `${JSON.stringify(uri.slice(0, 200))} is no resource of this server; its URIs are opencode://{instance} and opencode://{instance}/sessions/{id}, and resources/list names them.`,
    { uri },
  );
}

async function listResources(deps: FeatureDeps, params: Params): Promise<object> {
  const cursor = optionalTextIn(params, 'cursor');
  const { listResources: list } = await import('./resources.ts');
  const runtime = await deps.runtime();
  const page = await list(runtime, cursor);
  deps.listed(runtime.fleet.snapshot());
  return page;
}

async function readResource(deps: FeatureDeps, uri: string, request: McpRequest): Promise<object> {
  const name = resourceNamed(uri);
  const { MIME_TYPE, readResource: read } = await import('./resources.ts');
  const runtime = await deps.runtime();
  const text = await deps.onInstance('resources/read', name, request, () => read(runtime, name, callOf(request)));
  return { contents: [{ uri, mimeType: MIME_TYPE, text }] };
}

async function getPrompt(deps: FeatureDeps, params: Params): Promise<object> {
  const name = textIn(params, 'name');
  const args = textsIn(params, 'arguments');
  const { promptText } = await import('./prompts.ts');
  const text = promptText(name, args, deps.tools);
  return { messages: [{ role: 'user', content: { type: 'text', text } }] };
}

/** Completes `instance`, `id` and `session_id` of templates and prompts; nothing else has completions. */
async function complete(deps: FeatureDeps, params: Params, request: McpRequest): Promise<object> {
  const argument = objectIn(params, 'argument');
  const name = textIn(argument, 'name', 'params.argument');
  const value = textIn(argument, 'value', 'params.argument');
  const context = params['context'] === undefined ? {} : objectIn(params, 'context');
  const { instance } = textsIn(context, 'arguments', 'params.context');
  const { completeInstance, completeSession, completion } = await import('./completion.ts');
  const runtime = await deps.runtime();
  if (name === 'instance') return { completion: await completeInstance(runtime, value) };
  if (name !== 'id' && name !== 'session_id') return { completion: completion([]) };
  return { completion: await completeSession(runtime, instance, value, callOf(request)) };
}

function callOf({ signal, deadlineMs }: McpRequest): Call {
  return { signal, deadlineMs, onProgress: () => {} };
}
