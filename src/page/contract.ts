import type { Runtime } from '../operations/runtime.ts';

/** Below it lies all of the page but its first file. */
export const PAGE_PREFIX = '/opencode-mcp/page/';
/** A page of another origin cannot send it without asking first, which nobody here answers. */
export const PAGE_HEADER = 'x-opencode-mcp-page';

/** Who has the page open. */
export interface PageCaller {
  /** Goes into the record of calls. */
  readonly name: string;
  readonly role: 'read' | 'drive';
  /** Their role is from a grant: of each OpenCode 1 they see its own directory only, as by the proxied routes. */
  readonly isGuest?: boolean;
}

/** What a caller is shown, and acts on. */
export interface PageView {
  readonly runtime: Runtime;
  /** False: this machine's own instances only. */
  readonly all: boolean;
}

/** An answer other than the one that was asked for. The text is for the person: what is wrong, and what to do. */
export class PageRefusal extends Error {
  override readonly name = 'PageRefusal';
  readonly status: number;

  constructor(status: number, text: string, options?: ErrorOptions) {
    super(text, options);
    this.status = status;
  }
}
