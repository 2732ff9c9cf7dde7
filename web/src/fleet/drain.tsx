// Taking slots out of service and putting them back: the form of a node, and what stands in a slot that is out.
import { useEffect, useRef, useState } from 'preact/hooks';
import { type Slot, type Slot_Drain, WorkerState } from '../../../gen/facefusion/jobs/v1/system_service_pb.js';
import { moment, msOf } from '../format.ts';
import { systemService } from '../service/clients.ts';
import { mayAdminister } from '../service/identity.ts';
import { nodes, slots } from '../service/overview.ts';
import { words } from '../words/words.ts';

/** The service's own limit. */
const REASON_LENGTH = 200;

/** Out of service, and nothing runs there any more. */
export function isDrained({ drain, draining, state }: Slot): boolean {
  return (drain !== undefined || draining) && state === WorkerState.IDLE;
}

/** What the service has answered is shown at once, and not with the next look at all slots. */
function take(changed: readonly Slot[]): void {
  const at = ({ node, slot }: Slot) => `${node}/${slot}`;
  const news = new Map(changed.map((slot) => [at(slot), slot]));
  slots.value = slots.value?.map((slot) => news.get(at(slot)) ?? slot);
}

/** `slot` empty: the whole node. */
export async function putBack(node: string, slot = ''): Promise<void> {
  take((await systemService.restoreSlots({ node, slot })).slots);
  nodes.value = nodes.value.filter((one) => !(one.away && one.node === node));
}

interface DrainFormProps {
  readonly id: string;
  readonly node: string;
  readonly slots: readonly Slot[];
  readonly run: (act: () => Promise<void>) => Promise<void>;
  readonly close: () => void;
}

/** Asks what to take out, and why. */
export function DrainForm({ id, node, slots: of, run, close }: DrainFormProps) {
  const w = words.value.fleetPage;
  const first = useRef<HTMLInputElement>(null);
  const [slot, setSlot] = useState('');
  const [reason, setReason] = useState('');
  useEffect(() => first.current?.focus(), []);
  const submit = async (event: Event) => {
    event.preventDefault();
    await run(async () => {
      take((await systemService.drainSlots({ node, slot, reason })).slots);
      close();
    });
  };
  return (
    <form
      id={id}
      class="drain"
      aria-label={w.drainOf(node)}
      onSubmit={(event) => void submit(event)}
      onKeyDown={(event) => event.key === 'Escape' && close()}
    >
      {of.length > 1 && (
        <label>
          {w.drainWhat}
          <select class="field" value={slot} onChange={(event) => setSlot(event.currentTarget.value)}>
            <option value="">{w.wholeNode}</option>
            {of
              .filter(({ drain }) => !drain)
              .map((one) => (
                <option key={one.slot} value={one.slot}>
                  {w.slot(one.slot)}
                </option>
              ))}
          </select>
        </label>
      )}
      <label class="reason">
        {w.drainReason}
        <input
          ref={first}
          class="field"
          value={reason}
          maxLength={REASON_LENGTH}
          placeholder={w.drainExample}
          onInput={(event) => setReason(event.currentTarget.value)}
        />
      </label>
      <button class="btn primary" type="submit">
        {w.takeOut}
      </button>
      <button class="btn ghost" type="button" onClick={close}>
        {w.leave}
      </button>
      <p class="hint">{w.drainHint}</p>
    </form>
  );
}

/** Who took it out, when and why. */
export function saidOf({ by, at, reason, wholeNode }: Slot_Drain): string {
  const who = by === 'anonymous' ? '' : by;
  return words.value.fleetPage.takenOut({ by: who, at: moment(msOf(at) ?? 0), reason, wholeNode });
}

/** Who took a slot out, and the way back. */
export function OutOfService({ slot, run }: { readonly slot: Slot; readonly run: (act: () => Promise<void>) => Promise<void> }) {
  const w = words.value.fleetPage;
  const { drain } = slot;
  if (!drain) return null;
  return (
    <div class="out">
      <span class="quiet">{saidOf(drain)}</span>{' '}
      {mayAdminister.value && (
        <button class="link" type="button" onClick={() => void run(() => putBack(slot.node, slot.slot))}>
          {w.putBack}
          <span class="sr"> {w.slot(`${slot.node}/${slot.slot}`)}</span>
        </button>
      )}
    </div>
  );
}
