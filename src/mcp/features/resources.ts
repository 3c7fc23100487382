import type { Resource, ResourceTemplate } from '@modelcontextprotocol/sdk/types.js';

import type { Instance } from '../../model/instance.ts';
import { read } from '../../operations/sessions/read.ts';
import type { Call, Runtime } from '../../operations/runtime.ts';
import { listSessions } from '../../operations/sessions/sessions.ts';
import { getStatus } from '../../operations/listing/status.ts';
import { quoteName, quoteShort, singleLine } from '../../base/plain-text.ts';
import { INSTANCE_TEMPLATE, type ResourceName, SESSION_TEMPLATE, uriOf } from './resource-uri.ts';

/** Instances per page. */
const PAGE = 50;
const MESSAGES = 10;
export const MIME_TYPE = 'text/plain';

export const TEMPLATES: readonly ResourceTemplate[] = [
  {
    uriTemplate: INSTANCE_TEMPLATE,
    name: 'instance',
    description: 'State of an OpenCode instance, and its sessions',
    mimeType: MIME_TYPE,
  },
  {
    uriTemplate: SESSION_TEMPLATE,
    name: 'session',
    description: 'The newest messages of a session, its state and what it waits for',
    mimeType: MIME_TYPE,
  },
];

/** The instances as last known, each with its latest session. `cursor` comes from the page before. */
export async function listResources(
  runtime: Runtime,
  cursor: string | undefined,
): Promise<{ resources: Resource[]; nextCursor?: string }> {
  await runtime.fleet.ready();
  const { instances } = runtime.fleet.snapshot();
  const start = Math.max(0, Number.parseInt(cursor ?? '0', 10) || 0);
  const next = start + PAGE;
  return {
    resources: instances.slice(start, next).flatMap(resourcesOf),
    ...(next < instances.length && { nextCursor: String(next) }),
  };
}

function resourcesOf({ name, state, directory, overview }: Instance): Resource[] {
  const where = directory === undefined ? '' : ` in ${quoteShort(directory, 200)}`;
  const instance = {
    uri: uriOf({ instance: name }),
    name,
    description: `OpenCode instance, ${state}${where}`,
    mimeType: MIME_TYPE,
  };
  const session = overview?.session;
  if (session === undefined) return [instance];
  const latest = {
    uri: uriOf({ instance: name, session: session.id }),
    name: `${name}: ${singleLine(session.title, 60)}`,
    description: `Latest session of ${quoteName(name)}`,
    mimeType: MIME_TYPE,
    annotations: { lastModified: new Date(session.updatedMs).toISOString() },
  };
  return [instance, latest];
}

/** Returns the text of the corresponding tools. */
export async function readResource(runtime: Runtime, { instance, session }: ResourceName, call: Call): Promise<string> {
  if (session !== undefined)
    return (await read(runtime, { instance, session_id: session, message_limit: MESSAGES }, call)).text;
  const status = await getStatus(runtime, { instance }, call);
  // If the instance cannot be reached, the status says why.
  const sessions = await listSessions(runtime, { instance }, call).catch(() => undefined);
  return sessions === undefined ? status.text : `${status.text}\n${sessions.text}`;
}
