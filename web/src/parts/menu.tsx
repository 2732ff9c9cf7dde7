// A button with a menu of what else can be done. Keys as in every menu: arrows, Home, End, first letters, Escape. Always true: while it is open no key
// of the page's own does anything, and the focus goes back to the button, unless what was chosen has taken it elsewhere.
import { useLayoutEffect, useRef, useState } from 'preact/hooks';
import { Icon, type IconName } from './icons.tsx';

export interface MenuItem {
  readonly icon: IconName;
  readonly label: string;
  readonly run: () => void;
  /** It cannot be taken back. */
  readonly danger?: boolean;
}

/** Pixels that stay free between the menu and what is around it. */
const GAP = 4;

export function Menu({ label, items }: { readonly label: string; readonly items: readonly MenuItem[] }) {
  const [open, setOpen] = useState(false);
  const button = useRef<HTMLButtonElement>(null);
  const close = (focus: boolean) => {
    setOpen(false);
    if (focus) button.current?.focus({ preventScroll: true });
  };
  return (
    <>
      <button
        ref={button}
        class="btn ghost icon"
        type="button"
        aria-label={label}
        title={label}
        aria-haspopup="menu"
        aria-expanded={open}
        onClick={() => setOpen(!open)}
        onKeyDown={(event) => {
          if (event.key !== 'ArrowDown' && event.key !== 'ArrowUp') return;
          event.preventDefault();
          setOpen(true);
        }}
      >
        <Icon name="more" />
      </button>
      {open && <Items label={label} items={items} button={button.current!} close={close} />}
    </>
  );
}

interface ItemsProps {
  readonly label: string;
  readonly items: readonly MenuItem[];
  readonly button: HTMLButtonElement;
  readonly close: (focus: boolean) => void;
}

function Items({ label, items, button, close }: ItemsProps) {
  const list = useRef<HTMLDivElement>(null);
  const choices = () => [...(list.current?.querySelectorAll<HTMLElement>('[role=menuitem]') ?? [])];
  useLayoutEffect(() => {
    const menu = list.current!;
    place(menu, button);
    choices()[0]?.focus({ preventScroll: true });
    const outside = (event: Event) => {
      if (event.target instanceof Node && !menu.contains(event.target) && !button.contains(event.target)) close(false);
    };
    // What it belongs to moves away under it.
    const moved = (event: Event) => {
      if (!(event.target instanceof Node && menu.contains(event.target))) close(menu.contains(document.activeElement));
    };
    addEventListener('pointerdown', outside);
    addEventListener('scroll', moved, { passive: true, capture: true });
    addEventListener('resize', moved);
    return () => {
      removeEventListener('pointerdown', outside);
      removeEventListener('scroll', moved, { capture: true });
      removeEventListener('resize', moved);
    };
  }, []);
  const keys = (event: KeyboardEvent) => {
    event.stopPropagation();
    if (event.key === 'Escape') return close(true);
    if (event.key === 'Tab') return close(true);
    const all = choices();
    const at = all.indexOf(document.activeElement as HTMLElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key] ?? beginningWith(all, at, event);
    if (to === undefined) return;
    event.preventDefault();
    all.at(to % all.length)?.focus();
  };
  return (
    <div class="menu" role="menu" aria-label={label} ref={list} tabIndex={-1} onKeyDown={keys}>
      {items.map((item) => (
        <button
          key={item.label}
          class={item.danger ? 'danger' : ''}
          type="button"
          role="menuitem"
          tabIndex={-1}
          onClick={() => {
            close(true);
            item.run();
          }}
        >
          <Icon name={item.icon} />
          {item.label}
        </button>
      ))}
    </div>
  );
}

/** The next item that begins with the letter that was pressed. */
function beginningWith(all: readonly HTMLElement[], at: number, { key, ctrlKey, metaKey, altKey }: KeyboardEvent): number | undefined {
  if (key.length !== 1 || key === ' ' || ctrlKey || metaKey || altKey) return undefined;
  const letter = key.toLowerCase();
  const order = all.map((_, i) => (at + 1 + i) % all.length);
  return order.find((i) => all[i]!.textContent?.trim().toLowerCase().startsWith(letter));
}

/** Under the button, its end at the button's; above where there is more room. */
function place(menu: HTMLElement, button: HTMLElement): void {
  const at = button.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = menu;
  const below = innerHeight - at.bottom;
  const top = below < height + 2 * GAP && at.top > below ? at.top - height - GAP : at.bottom + GAP;
  menu.style.top = `${Math.max(GAP, Math.min(top, innerHeight - height - GAP))}px`;
  menu.style.left = `${Math.max(GAP, Math.min(at.right - width, innerWidth - width - GAP))}px`;
}
