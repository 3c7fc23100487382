import type { Connection } from '../../http/exchange.ts';
import type { Dialect } from '../../model/instance.ts';
import type { OpencodeApi } from '../api.ts';
import { opencode1Api } from './opencode-1.ts';
import { opencode2Api } from './opencode-2/opencode-2.ts';

/** The calls to the opencode at one endpoint, in its dialect. `signal` aborts them all. */
export function createApi(dialect: Dialect, connection: Connection, signal?: AbortSignal): OpencodeApi {
  return dialect === 'opencode-1' ? opencode1Api(connection, signal) : opencode2Api(connection, dialect, signal);
}
