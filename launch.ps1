# Sets up what Wanreel needs, then passes its arguments on to `wanreel`. For Windows; launch.sh is for Linux and macOS.
$ErrorActionPreference = 'Stop'
$root = $PSScriptRoot
$setup = Join-Path $root 'scripts/setup'
$rest = @($args)

if ($rest.Count -gt 0 -and $rest[0] -in '-h', '--help') {
    Write-Host 'Usage: .\launch.ps1 [--repair | --setup-only] [OPTIONS OF THE PAGE | COMMAND OF wanreel ...]'
    Write-Host ''
    Write-Host 'Sets up .venv in this folder (the first time, and when the project file changed). Then it serves the page'
    Write-Host 'and opens it in a browser, or runs a command. Options of the page: .\launch.ps1 serve --help'
    Write-Host '  .\launch.ps1 --share           from everywhere: makes a key and prints the address'
    Write-Host '  .\launch.ps1 --host 0.0.0.0    for your network: makes a key and prints a sign-in link'
    Write-Host '  --setup-only   set up and stop'
    Write-Host '  --repair       make .venv anew, then go on'
    Write-Host 'Variables: WANREEL_PYTHON, WANREEL_TORCH, WANREEL_DATA_DIR (otherwise this folder), NO_COLOR'
    exit 0
}

# Fit: 3.11 or newer, and able to make a virtual environment. Running it is the only sure test.
function Test-Python([string[]]$command) {
    try {
        $exe, $flags = $command
        & $exe @flags -I -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>$null | Out-Null
        return $LASTEXITCODE -eq 0
    } catch {
        return $false
    }
}

function Find-Python {
    if ($env:WANREEL_PYTHON) {
        if (Test-Python @($env:WANREEL_PYTHON)) { return , @($env:WANREEL_PYTHON) }
        Write-Host "WANREEL_PYTHON=$env:WANREEL_PYTHON is no Python 3.11 or newer that can make a virtual environment."
        Write-Host '  Cure: set it to another one, or remove it.'
        exit 1
    }
    $own = Join-Path $root '.venv/Scripts/python.exe'
    $stamp = Join-Path $root '.venv/wanreel-setup.json'
    if ((Test-Path $stamp) -and (Test-Python @($own))) { return , @($own) }
    foreach ($command in @('py', '-3.13'), @('py', '-3.12'), @('py', '-3.11'), @('python'), @('python3')) {
        if (Test-Python $command) { return , $command }
    }
    Write-Host 'No Python 3.11 or newer was found.'
    Write-Host '  Cure: winget install Python.Python.3.13, or set WANREEL_PYTHON.'
    exit 1
}

$python = Find-Python
$exe, $flags = $python
$own = @()
if ($rest.Count -gt 0 -and $rest[0] -eq '--repair') {
    $own = @('--repair')
    $rest = @($rest | Select-Object -Skip 1)
}
if (-not $env:WANREEL_DATA_DIR) { $env:WANREEL_DATA_DIR = $root }
if ($rest.Count -gt 0 -and $rest[0] -eq '--setup-only') {
    & $exe @flags -I -S $setup @own
    exit $LASTEXITCODE
}
if ($rest.Count -gt 0 -and $rest[0] -eq '--ray') { $rest = @('cluster', 'up', '--with-ui') + @($rest | Select-Object -Skip 1) }
if ($rest.Count -eq 0 -or ($rest[0] -like '-*' -and $rest[0] -notmatch '^--(version|server(=.*)?)$')) { $rest = @('serve') + $rest }
if ($rest[0] -eq 'serve') {
    # What comes after wins: --no-open, --no-create-key.
    $rest = @('serve', '--open', '--create-key') + @($rest | Select-Object -Skip 1)
    $own += @('--extras', 'ui')
    if ($rest -contains '--quiet') { $own += '--quiet' }
} elseif ($rest[0] -eq 'cluster') {
    $own += @('--extras', 'ray,ui')
}
& $exe @flags -I -S $setup @own -- wanreel @rest
exit $LASTEXITCODE
