/** An instance, or one of its sessions, as `opencode://…` names it. */
export interface ResourceName {
  readonly instance: string;
  readonly session?: string;
}

export const INSTANCE_TEMPLATE = 'opencode://{instance}';
export const SESSION_TEMPLATE = 'opencode://{instance}/sessions/{id}';

const FORM = /^opencode:\/\/([^/?#]+)(?:\/sessions\/([^/?#]+))?\/?$/;

export function uriOf({ instance, session }: ResourceName): string {
  const base = `opencode://${encodeURIComponent(instance)}`;
  return session === undefined ? base : `${base}/sessions/${encodeURIComponent(session)}`;
}

/** Undefined if the URI is not one of ours. */
export function parseUri(uri: string): ResourceName | undefined {
  const [, instance, session] = FORM.exec(uri) ?? [];
  if (instance === undefined) return undefined;
  try {
    return {
      instance: decodeURIComponent(instance),
      ...(session !== undefined && { session: decodeURIComponent(session) }),
    };
  } catch {
    return undefined;
  }
}
