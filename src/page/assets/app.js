document.title = 'opencode-mcp';
