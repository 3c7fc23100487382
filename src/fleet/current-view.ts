import type { EndpointRecord, EndpointTable } from './endpoint-table.ts';
import { buildView, EMPTY_VIEW, type View, type ViewInput } from './view.ts';

/** Removed registrations to remember until the next view says when they were last seen. */
const MAX_REMOVED = 1000;

/** The view of a table, rebuilt only when somebody looks and something has changed. */
export class CurrentView {
  readonly #table: EndpointTable;
  readonly #input: () => Pick<ViewInput, 'proofs' | 'returning' | 'sources'>;
  #removed = new Map<string, EndpointRecord>();
  #view: View = EMPTY_VIEW;
  #outdated = true;

  constructor(table: EndpointTable, input: () => Pick<ViewInput, 'proofs' | 'returning' | 'sources'>) {
    this.#table = table;
    this.#input = input;
  }

  outdate(): void {
    this.#outdated = true;
  }

  /** The next view shows it for the last time. */
  remember(removed: EndpointRecord): void {
    // Where nobody looks, churn must not pile up.
    if (this.#removed.size >= MAX_REMOVED) this.get();
    this.#removed.set(removed.id, removed);
    this.outdate();
  }

  get(): View {
    if (!this.#outdated) return this.#view;
    this.#view = buildView(this.#view, {
      ...this.#input(),
      records: this.#table.all(),
      recordOf: (id) => {
        const registered = this.#table.get(id);
        const record = registered ?? this.#removed.get(id);
        return record === undefined ? undefined : { record, registered: registered !== undefined };
      },
    });
    this.#removed = new Map();
    this.#outdated = false;
    return this.#view;
  }
}
