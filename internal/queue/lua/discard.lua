-- Removes keys of a campaign that is being staged, unless another producer has
-- committed it, or begun under the same key with other content.
-- KEYS 1 meta 2.. the keys to remove, of which meta may be one
-- ARGV 1 digest
-- Returns 1, or 0 if nothing was removed.
if redis.call('HGET', KEYS[1], 'state') ~= 'staging' or redis.call('HGET', KEYS[1], 'digest') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do redis.call('DEL', KEYS[i]) end
return 1
