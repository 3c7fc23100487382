import type { Toolset } from '../../config/settings.ts';
import type { ListedTool } from './listing.ts';

/** An entry of tools/list, and what --toolsets and --read-only select by. */
interface ReadyTool {
  readonly toolset: Toolset;
  readonly readOnly: boolean;
  readonly listed: ListedTool;
}

/** Defined by the build. Converting the zod schemas to JSON at each start took a tenth of the start-up time. */
declare const __READY_TOOLS__: readonly ReadyTool[] | undefined;

/** The entries of tools/list that the settings allow, in its order. */
export async function listedTools(toolsets: readonly Toolset[], readOnly: boolean): Promise<readonly ListedTool[]> {
  const ready = typeof __READY_TOOLS__ === 'object' ? __READY_TOOLS__ : await makeReadyTools();
  return ready
    .filter((tool) => toolsets.includes(tool.toolset) && (!readOnly || tool.readOnly))
    .map(({ listed }) => listed);
}

/** For the build, and for unbundled source. */
export async function makeReadyTools(): Promise<readonly ReadyTool[]> {
  const [{ TOOLS }, { listTool }] = await Promise.all([import('./tools.ts'), import('./listing.ts')]);
  return TOOLS.map((tool) => ({
    toolset: tool.toolset,
    readOnly: tool.annotations.readOnlyHint,
    listed: listTool(tool),
  }));
}
