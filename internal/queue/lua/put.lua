-- Stores one value of a campaign that is being staged, while the staging is still
-- the caller's: another producer under the same key may have begun with other content.
-- Where another producer of the same content was faster, there is nothing to store.
-- KEYS 1 meta 2 value
-- ARGV 1 digest 2 value
-- Returns 1, or 0 if the staging is not the caller's any more.
local state = redis.call('HGET', KEYS[1], 'state')
if not state or redis.call('HGET', KEYS[1], 'digest') ~= ARGV[1] then return 0 end
if state == 'staging' then redis.call('SET', KEYS[2], ARGV[2]) end
return 1
