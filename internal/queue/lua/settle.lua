-- Replaces a block's outcome log by its folded state, if neither changed since
-- they were read, and moves the block's share of the campaign's totals.
-- KEYS 1 state 2 log 3 sums 4 totals 5 live 6 meta
-- ARGV 1 block number 2 SHA-1 of the state that was read, in hex 3 of the log that was read
--      4 sum that was read 5 new sum 6 new state
--      7 '1' when the caller does not hold the block: who does may write to its log
--      8.. pairs of outcome and change of its total
-- Returns 1, or 0 if it must be read again, or -1 when the campaign is not open (any
-- more). Lengths would not do: two deferrals of one recipient are as long as each other.
local function sum(key) return redis.sha1hex(redis.call('GET', key) or '') end
if redis.call('HGET', KEYS[6], 'state') ~= 'open' then return -1 end
if sum(KEYS[1]) ~= ARGV[2] or sum(KEYS[2]) ~= ARGV[3] then return 0 end
if (redis.call('HGET', KEYS[3], ARGV[1]) or '') ~= ARGV[4] then return 0 end
redis.call('SET', KEYS[1], ARGV[6])
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
if ARGV[7] ~= '1' then redis.call('SREM', KEYS[5], ARGV[1]) end
local t = redis.call('TIME')
redis.call('HSET', KEYS[4], 'updated', string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000)))
for i = 8, #ARGV, 2 do redis.call('HINCRBY', KEYS[4], ARGV[i], ARGV[i + 1]) end
return 1
