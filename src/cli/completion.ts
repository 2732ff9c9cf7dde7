// `ffjobs completion SHELL`: a script that completes commands and options, made of the program's own tree, so that it has what there is. All three
// find out the same way where they stand: the words that are names of commands, one below the other.
import type { Command } from 'commander';

export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof SHELLS)[number];

interface Place {
  /** Names of commands with blanks between; empty: the program itself. */
  readonly path: string;
  readonly offers: readonly { readonly word: string; readonly meaning: string }[];
}

export function completionScript(program: Command, shell: Shell): string {
  const places = [...placesOf(program, '', optionsOf(program))];
  return { bash, zsh, fish }[shell](places);
}

function* placesOf(command: Command, path: string, everywhere: Place['offers']): Generator<Place> {
  const commands = command.commands.map((child) => ({ word: child.name(), meaning: child.summary() || child.description() }));
  const own = path === '' ? [] : optionsOf(command);
  yield { path, offers: [...commands, ...own, ...everywhere, { word: '--help', meaning: 'what there is, with examples' }] };
  for (const child of command.commands) yield* placesOf(child, path === '' ? child.name() : `${path} ${child.name()}`, everywhere);
}

function optionsOf(command: Command): Place['offers'] {
  return command.options.flatMap(({ long, description }) => (long ? [{ word: long, meaning: description }] : []));
}

const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const below = (places: readonly Place[]) => places.filter(({ path }) => path !== '').map(({ path }) => quoted(path));
const words = ({ offers }: Place) => offers.map(({ word }) => word).join(' ');

function bash(places: readonly Place[]): string {
  return `# ffjobs completion bash > /etc/bash_completion.d/ffjobs, or: source <(ffjobs completion bash)
_ffjobs() {
  local at= word offers=
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "\${at:+$at }$word" in
      ${below(places).join(' | ')}) at="\${at:+$at }$word" ;;
    esac
  done
  case "$at" in
${places.map((place) => `    ${quoted(place.path)}) offers=${quoted(words(place))} ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$offers" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _ffjobs ffjobs
`;
}

function zsh(places: readonly Place[]): string {
  return `#compdef ffjobs
# ffjobs completion zsh > "\${fpath[1]}/_ffjobs", or: source <(ffjobs completion zsh)
_ffjobs() {
  local at= word
  local -a offers
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "\${at:+$at }$word" in
      (${below(places).join(' | ')}) at="\${at:+$at }$word" ;;
    esac
  done
  case "$at" in
${places.map((place) => `    (${quoted(place.path)}) offers=(${words(place)}) ;;`).join('\n')}
  esac
  compadd -a offers
  _files
}
if [[ $funcstack[1] == _ffjobs ]]; then _ffjobs "$@"; else compdef _ffjobs ffjobs; fi
`;
}

function fish(places: readonly Place[]): string {
  const lines = places.flatMap(({ path, offers }) =>
    offers.map(({ word, meaning }) => {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${word}`;
      return `complete -c ffjobs -n ${quoted(`__ffjobs_at ${quotedInside(path)}`)} ${what} -d ${fishQuoted(meaning)}`;
    }),
  );
  return `# ffjobs completion fish > ~/.config/fish/completions/ffjobs.fish
function __ffjobs_at
  set -l at
  set -l words (commandline -opc)
  set -e words[1]
  for word in $words
    switch (string join ' ' $at $word)
      case ${below(places).join(' ')}
        set -a at $word
    end
  end
  test (string join ' ' $at) = "$argv[1]"
end
${lines.join('\n')}
`;
}

const quotedInside = (text: string) => `"${text}"`;
const fishQuoted = (text: string) => `'${text.replaceAll(/[\\']/g, '\\$&')}'`;
