-- A store of version 5 as it may stand on a disk; the test says what must become of it.
INSERT INTO jobs VALUES (
    3, '00000000-0000-4000-8000-000000000001', 0, 5, 1000, 1000, '[4,24]', CAST('alice' AS BLOB), 'USER',
    '{"name":"old job","description":"","priority":1,"minimum_retry_delay":600,"no_progress_timeout":1209600,"maximum_download_time":null,"notify_flags":3,"cost_flags":null,"notification_clsid":"","dynamic_content":false,"high_performance":false,"max_download_size":null,"strict_http":false,"file_concurrency":1,"stall_timeout":60,"umask":18,"acl_flags":1,"notify_url":"http://example.org/hook"}',
    2, '{"name":"BG_E_NETWORK_DISCONNECTED","context":6,"message":"no network","file_index":1,"protocol":"http"}', 2,
    100.5, 200.5, NULL, NULL, 1, 4, 12.25, NULL, 800.0, 190.0, NULL, '', 1, 3, '[["server","negotiate"]]',
    '{"remote_name":"","local_name":"/home/alice/r\udcff","temporary_name":"/home/alice/.BIT02.tmp","ranges":[],"checksum":null,"bytes_total":7,"bytes_transferred":3,"validator":{"etag":null,"last_modified":null,"size":7},"transferred":false,"completed":false,"validation":null,"resumable":true,"restarts":0,"response_headers":"","meant_for":"","sealed_userinfo":""}',
    CAST('{"v":1}' AS BLOB), 900.0, '[["server","basic","v1:x"]]', 'v1:y', 1,
    '{"location":"current_user","store":"MY","sha1":"","subject":"alice"}', 1,
    '{"program":"/usr/bin/true","arguments":["true","x"]}', 'error', 'transferred'
);
INSERT INTO files VALUES (
    3, 0, CAST('http://example.org/a' AS BLOB), CAST('/home/alice/a' AS BLOB), CAST('/home/alice/.BIT00.tmp' AS BLOB),
    NULL, NULL, 10, 10, CAST('"v1"' AS BLOB), CAST('Mon, 01 Jan 2024 00:00:00 GMT' AS BLOB), 10, 1, 0, NULL, 1, 0,
    CAST('HTTP/1.1 200 OK' AS BLOB), 'v1:z',
    'https://example.net', '{"wanted":[[5,-1]],"filled":[[0,5]],"position":3}', 1
);
INSERT INTO files VALUES (
    3, 1, CAST('http://example.org/b' AS BLOB), X'2F686F6D652FFF', CAST('/home/.BIT01.tmp' AS BLOB),
    '[[0,5],[10,-1]]', 'sha256:00', NULL, 3, NULL, NULL, NULL, 0, 0, NULL, NULL, 1, X'', '', '', NULL, 0
);
INSERT INTO events VALUES (41, 150.0, 'created', '00000000-0000-4000-8000-000000000001', CAST('made' AS BLOB), 1000, 3, '{"process_id":"12"}');
INSERT INTO effects VALUES (7, '00000000-0000-4000-8000-000000000001', 'cancel', X'');
INSERT INTO proxy_settings VALUES ('LOCALSYSTEM', '{"usage":"no_proxy","proxy_list":"","bypass_list":"","script_url":""}');
INSERT INTO machine_settings VALUES ('peer_caching.configuration_flags', '3');
