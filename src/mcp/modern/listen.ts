import { parseUri } from '../features/resource-uri.ts';
import { FleetNews } from '../features/fleet-news.ts';
import type { Core } from '../method.ts';
import { type Params, type RequestId, invalidParams, isObject, objectIn } from '../wire.ts';
import { SUBSCRIPTION_ID } from './envelope.ts';

/** Tells the client of one thing; resolves once there is room for the next. */
type Tell = (method: string, params: Params) => Promise<void>;

interface Wanted {
  readonly resourcesListChanged?: true;
  readonly resourceSubscriptions?: readonly string[];
}

/**
 * Tells of changes until `signal` aborts: first what it agreed to tell of, then only that, each under the id of the request. It
 * begins discovery only for a client that names resources, since clients listen to lists before they use any.
 */
export async function listen(
  core: Core,
  params: Params,
  { id, signal, tell }: { readonly id: RequestId; readonly signal: AbortSignal; readonly tell: Tell },
): Promise<object> {
  const _meta = { [SUBSCRIPTION_ID]: id };
  const wanted = wantedOf(objectIn(params, 'notifications'));
  const news = new FleetNews({
    listChanged: () => tell('notifications/resources/list_changed', { _meta }),
    updated: (uri) => tell('notifications/resources/updated', { _meta, uri }),
  });
  await tell('notifications/subscriptions/acknowledged', { _meta, notifications: wanted });
  const uris = wanted.resourceSubscriptions ?? [];
  const known = uris.length === 0 ? NOTHING : (await core.runtime()).fleet.snapshot();
  if (wanted.resourcesListChanged === true) news.listed(known);
  for (const uri of uris) news.subscribe(uri, known);
  core.news.add(news);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  core.news.delete(news);
  return { _meta };
}

/** What the client may know of the instances before any was looked for. */
const NOTHING = { instances: [] } as const;

/** More than a client has use for. */
const MAX_URIS = 1_000;

/** What is asked for and can change. The other lists never do. */
function wantedOf({ resourcesListChanged, resourceSubscriptions }: Params): Wanted {
  if (resourceSubscriptions !== undefined && !Array.isArray(resourceSubscriptions))
    throw invalidParams('params.notifications.resourceSubscriptions: expected a list of URIs');
  const uris = (resourceSubscriptions ?? [])
    .filter((uri): uri is string => typeof uri === 'string' && parseUri(uri) !== undefined)
    .slice(0, MAX_URIS);
  return {
    ...(resourcesListChanged === true && { resourcesListChanged }),
    ...(uris.length > 0 && { resourceSubscriptions: uris }),
  };
}

/** Whether a listener asks to be told of tasks, which needs their extension. */
export function asksForTasks({ notifications }: Params): boolean {
  return isObject(notifications) && notifications['taskIds'] !== undefined;
}
