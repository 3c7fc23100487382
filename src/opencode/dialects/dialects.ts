import type { Connection } from '../../http/exchange.ts';
import type { Dialect } from '../../model/instance.ts';
import type { OpencodeApi } from '../api.ts';
import { opencode1Api } from './opencode-1.ts';
import { opencode2Api } from './opencode-2/opencode-2.ts';

/** The calls to the opencode at one endpoint, as its generation wants them. */
export function createApi(dialect: Dialect, connection: Connection): OpencodeApi {
  return dialect === 'opencode-1' ? opencode1Api(connection) : opencode2Api(connection, dialect);
}
