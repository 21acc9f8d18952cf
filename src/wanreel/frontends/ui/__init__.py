"""The studio: the web page, and the same for gradio_client and MCP. Builds requests and shows events; decides nothing."""
