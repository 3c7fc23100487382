import type { LoggingLevel } from '@modelcontextprotocol/sdk/types.js';

import { isLogLevel } from '../features/client-log.ts';
import type { McpRequest } from '../core.ts';
import { invalidParams, isObject, type Params, RpcError } from '../wire.ts';

const NAMESPACE = 'io.modelcontextprotocol/';
export const PROTOCOL_VERSION = '2026-07-28';
export const SERVER_INFO = `${NAMESPACE}serverInfo`;
export const SUBSCRIPTION_ID = `${NAMESPACE}subscriptionId`;
/** The extension for calls that run in the background. */
export const TASKS_EXTENSION = `${NAMESPACE}tasks`;

const VERSION_KEY = `${NAMESPACE}protocolVersion`;
const CAPABILITIES_KEY = `${NAMESPACE}clientCapabilities`;
const CLIENT_KEY = `${NAMESPACE}clientInfo`;
const LOG_LEVEL_KEY = `${NAMESPACE}logLevel`;

const UNSUPPORTED_VERSION = -32_022;
const MISSING_CAPABILITY = -32_021;

/** How much of a client's own text an answer repeats. */
const MAX_ECHO_CHARS = 100;

/** What each request says about its client. Nothing is remembered from one request to the next. */
export interface Envelope {
  readonly client: McpRequest['client'];
  readonly capabilities: Params;
  readonly logLevel: LoggingLevel | undefined;
  readonly progressToken: string | number | undefined;
}

/** Whether a message belongs to this era. An incomplete envelope counts, and gets an error as its answer. */
export function isEnveloped(params: unknown): boolean {
  const meta = isObject(params) ? params['_meta'] : undefined;
  return isObject(meta) && (VERSION_KEY in meta || CAPABILITIES_KEY in meta);
}

/** @throws {RpcError} */
export function readEnvelope(params: Params): Envelope {
  const meta = isObject(params['_meta']) ? params['_meta'] : {};
  const version = meta[VERSION_KEY];
  if (typeof version !== 'string') throw invalidParams(`params._meta lacks ${VERSION_KEY}`);
  if (version !== PROTOCOL_VERSION)
    throw new RpcError(UNSUPPORTED_VERSION, `This server speaks ${PROTOCOL_VERSION}, and 2025-11-25 after initialize`, {
      supported: [PROTOCOL_VERSION],
      requested: version.slice(0, MAX_ECHO_CHARS),
    });
  const capabilities = meta[CAPABILITIES_KEY];
  if (!isObject(capabilities)) throw invalidParams(`params._meta lacks ${CAPABILITIES_KEY}`);
  const logLevel = meta[LOG_LEVEL_KEY];
  if (logLevel !== undefined && !isLogLevel(logLevel)) throw invalidParams(`${LOG_LEVEL_KEY} is not a log level`);
  const { name, version: clientVersion } = isObject(meta[CLIENT_KEY]) ? meta[CLIENT_KEY] : {};
  const token = meta['progressToken'];
  return {
    client:
      typeof name === 'string' ? { name, version: typeof clientVersion === 'string' ? clientVersion : '' } : undefined,
    capabilities,
    logLevel,
    progressToken: typeof token === 'string' || typeof token === 'number' ? token : undefined,
  };
}

export function declaresTasks({ capabilities: { extensions } }: Envelope): boolean {
  return isObject(extensions) && isObject(extensions[TASKS_EXTENSION]);
}

/** The answer to a request that needs tasks from a client that did not declare them. */
export function missingTasks(): RpcError {
  return new RpcError(MISSING_CAPABILITY, `This needs the capability ${TASKS_EXTENSION} in the same request`, {
    requiredCapabilities: { extensions: { [TASKS_EXTENSION]: {} } },
  });
}
