/** Replaced by the build; undefined if the source runs unbundled, as in tests. */
declare const __OPENCODE_MCP_VERSION__: string | undefined;

export const VERSION = typeof __OPENCODE_MCP_VERSION__ === 'string' ? __OPENCODE_MCP_VERSION__ : '0.0.0-source';
