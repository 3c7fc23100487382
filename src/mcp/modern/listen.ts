import { parseUri } from '../features/resource-uri.ts';
import { FleetNews, MAX_SUBSCRIPTIONS } from '../features/fleet-news.ts';
import type { Core } from '../core.ts';
import { type Params, type RequestId, invalidParams, isObject, objectIn } from '../wire.ts';
import { SUBSCRIPTION_ID } from './envelope.ts';

interface Wanted {
  readonly resourcesListChanged?: true;
  readonly resourceSubscriptions?: readonly string[];
}

/**
 * Acknowledges what it will report, then reports changes of that under the request's id until `signal` aborts. It starts discovery
 * only if the client names resources, since clients listen to lists before they use any.
 */
export async function listen(
  core: Core,
  params: Params,
  { id, signal }: { readonly id: RequestId; readonly signal: AbortSignal },
): Promise<object> {
  const _meta = { [SUBSCRIPTION_ID]: id };
  const wanted = wantedOf(objectIn(params, 'notifications'));
  const news = new FleetNews((method, change) => core.sendNotification(method, { _meta, ...change }));
  await core.sendNotification('notifications/subscriptions/acknowledged', { _meta, notifications: wanted });
  const uris = wanted.resourceSubscriptions ?? [];
  const known = uris.length === 0 ? { instances: [] } : (await core.runtime()).fleet.snapshot();
  if (wanted.resourcesListChanged === true) news.listed(known);
  for (const uri of uris) news.subscribe(uri, known);
  core.news.add(news);
  if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  core.news.delete(news);
  return { _meta };
}

/** The part of the wish that can change. The lists of tools and prompts never do. */
function wantedOf({ resourcesListChanged, resourceSubscriptions }: Params): Wanted {
  if (resourceSubscriptions !== undefined && !Array.isArray(resourceSubscriptions))
    throw invalidParams('params.notifications.resourceSubscriptions: expected a list of URIs');
  const uris = (resourceSubscriptions ?? [])
    .filter((uri): uri is string => typeof uri === 'string' && parseUri(uri) !== undefined)
    .slice(0, MAX_SUBSCRIPTIONS);
  return {
    ...(resourcesListChanged === true && { resourcesListChanged }),
    ...(uris.length > 0 && { resourceSubscriptions: uris }),
  };
}

/** Whether the listener wants to be notified of tasks, which needs their extension. */
export function asksForTasks({ notifications }: Params): boolean {
  return isObject(notifications) && notifications['taskIds'] !== undefined;
}
