export function mount(root) { root.textContent = "create"; }
