import type { Runtime } from '../operations/runtime.ts';

/** Path of everything of the page but its first file. */
export const PAGE_PREFIX = '/opencode-mcp/page/';
/** A page of another origin may send this header only after a CORS preflight, which is never granted. */
export const PAGE_HEADER = 'x-opencode-mcp-page';

/** Who has the page open. */
export interface PageCaller {
  /** For the record of calls. */
  readonly name: string;
  readonly role: 'read' | 'drive';
  /** Their role comes from a grant: they see only each OpenCode 1's own directory, as through the proxied routes. */
  readonly isGuest?: boolean;
}

/** What a caller sees and acts on. */
export interface PageView {
  readonly runtime: Runtime;
  /** False: only this machine's instances. */
  readonly all: boolean;
}

/** A refusal by HTTP status. The text says what is wrong and what to do. */
export class PageRefusal extends Error {
  override readonly name = 'PageRefusal';
  readonly status: number;

  constructor(status: number, text: string, options?: ErrorOptions) {
    super(text, options);
    this.status = status;
  }
}
