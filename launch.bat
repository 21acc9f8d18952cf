@echo off
rem Runs launch.ps1, also where scripts are not allowed to run by themselves.
powershell -NoProfile -ExecutionPolicy Bypass -File "%~dp0launch.ps1" %*
exit /b %ERRORLEVEL%
