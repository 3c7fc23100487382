export const SHELLS = ['bash', 'zsh', 'fish'] as const;
export type CompletedShell = (typeof SHELLS)[number];

/** Each script calls `opencode-mcp __complete` at Tab. The names it prints are data that no shell evaluates. */
export const SCRIPTS: Readonly<Record<CompletedShell, string>> = {
  bash: `# Completion of opencode-mcp in bash. In ~/.bashrc: source <(opencode-mcp completion bash)
_opencode_mcp() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    COMPREPLY+=("$line")
  done < <(command opencode-mcp __complete bash "\${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2>/dev/null </dev/null)
}
complete -F _opencode_mcp opencode-mcp
`,
  zsh: `#compdef opencode-mcp
# Completion of opencode-mcp in zsh. In ~/.zshrc: source <(opencode-mcp completion zsh)
_opencode_mcp() {
  local -a found
  found=(\${(f)"$(command opencode-mcp __complete zsh "\${(@Q)words[1,CURRENT]}" 2>/dev/null </dev/null)"})
  (( $#found )) && compadd -- "\${found[@]}"
}
if [ "\${funcstack[1]}" = _opencode-mcp ]; then
  _opencode_mcp "$@"
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _opencode_mcp opencode-mcp
fi
`,
  fish: `# Completion of opencode-mcp in fish. In ~/.config/fish/config.fish: opencode-mcp completion fish | source
function __opencode_mcp_complete
    set -l current (commandline -ct)
    command opencode-mcp __complete fish (commandline -opc) "$current" 2>/dev/null </dev/null
end
complete -c opencode-mcp -f -a '(__opencode_mcp_complete)'
`,
};
