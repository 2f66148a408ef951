-- Ends a rewind, if it is the one that was dealt with.
-- KEYS 1 rewound 2 gap
-- ARGV 1 rewound as it was read
-- Returns 1, or 0 if it has ended already, or another has come.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
