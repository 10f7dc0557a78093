# Tests of obox
